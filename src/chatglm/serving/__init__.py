"""HTTP: one file per dialect, each a thin client of `Assistant`. `app.create_app` puts them together."""
