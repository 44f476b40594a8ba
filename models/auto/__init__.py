"""`tagbus train auto`: what fits a corpus and a time is chosen, trained and measured."""
