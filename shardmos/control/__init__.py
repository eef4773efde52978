"""The coordinator: starts and watches workers, pushes modules into them, and speaks ZeroMQ to clients."""
