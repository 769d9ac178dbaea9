"""Raw files of any format, read as a stream of documents."""
