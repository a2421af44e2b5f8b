"""The asynchronous client: written by hand. `snakeline.client.sync` is made from it."""
