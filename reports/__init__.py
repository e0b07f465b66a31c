"""Results out: run directories, and the tables and curves made from them."""
