"""Evidence: read a process's, write a colony's into a file, check such a file without a server."""
