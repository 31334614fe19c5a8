"""What backend, launcher and worker share about one replica."""
