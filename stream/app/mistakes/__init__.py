"""A page for editors about a tagger's mistakes on contents with known tags: `tagbus evaluate --errors`."""
