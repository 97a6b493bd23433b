"""Spoken requests in Chinese, written for this project, and what a right answer to the checkable ones says.

*.toml             hand-written questions with their answers, and templates
templates.py       those files into drafts
sums.py stories.py puzzles.py logic.py      drafts computed: arithmetic, word problems, reasoning
speech.py          how people say it: numbers in words, fillers, no punctuation
generate.py        drafts into ``requests.jsonl``; ``python -m benchmarks.requests_zh`` writes it
numerals.py wording.py grading.py           was the answer right?
"""
