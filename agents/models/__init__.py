"""Language models behind one protocol, and the layers between a reader and a server."""
