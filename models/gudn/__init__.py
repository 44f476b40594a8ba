"""GUDN: a guide network that pulls what BERT sees in a text toward what it sees in the names of the text's tags.

Wang et al. 2022, GUDN: A novel guide network with label reinforcement strategy for extreme multi-label text
classification, arXiv 2201.11582. The names of a content's tags, its labels, go through the same BERT as its text.
Losses on both fine-tune BERT for the classifier, which reads the text alone. There are two variants, the paper's and
that of its public code (github.com/wq2581/GUDN): see plan.py.
"""
