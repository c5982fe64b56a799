"""What a server keeps in the home folder, and what it does with it in the background."""
