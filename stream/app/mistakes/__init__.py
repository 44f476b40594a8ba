"""What a tagger gets wrong on contents with known tags, as a page that an editor reads: `tagbus evaluate --errors`."""
