"""HTTP: a file for each dialect, which is a thin client of `Assistant`. `app.create_app` puts them together."""
