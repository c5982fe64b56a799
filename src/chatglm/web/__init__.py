"""WEB: the page, over conversations and models. It is rendered on the server, and uses neither engine nor API."""
