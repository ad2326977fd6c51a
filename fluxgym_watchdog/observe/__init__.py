"""Reads the world and changes nothing."""
