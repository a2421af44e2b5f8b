"""What a user types or imports: the `snakeline` command and the Python client of the HTTP API."""
