"""What runs in a worker process: the binding, its loop, the host of Python middleboxes."""
