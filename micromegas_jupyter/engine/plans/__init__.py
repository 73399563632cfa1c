"""What is read from DataFusion's plans."""
