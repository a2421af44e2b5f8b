"""The commands that speak to a service over its public HTTP API."""
