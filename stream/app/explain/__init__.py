"""Why a content has its tags and no others: each candidate, how it was found, and where it was cut."""
