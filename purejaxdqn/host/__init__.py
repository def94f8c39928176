"""The host side: files, command lines, pictures and the runtime around the pure core."""
