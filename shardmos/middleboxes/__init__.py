"""The middleboxes that we ship; each one file, each also an example."""
