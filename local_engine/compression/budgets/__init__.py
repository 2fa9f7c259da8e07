"""How many entries each layer and head keeps."""
