"""Parts of the server that several APIs share: bases, uploads and downloads of files, answers and summaries."""
