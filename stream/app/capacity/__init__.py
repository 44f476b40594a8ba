"""How much a rate of contents takes: `tagbus plan`."""
