"""Capacity planning for a rate of contents: `tagbus plan`."""
