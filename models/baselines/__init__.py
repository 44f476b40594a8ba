"""Classical taggers that ours is compared with."""
