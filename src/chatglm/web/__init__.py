"""WEB: the page, over conversations and models. Rendered on the server; knows no engine and no API."""
