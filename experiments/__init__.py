"""Recipes: scripts that compose the library's parts."""
