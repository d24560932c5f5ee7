"""Models: loaded into this process, or asked through a server."""
