"""What knows FluxGym: its log runner and its outputs folder."""
