"""Hear, think and speak: ``pipeline`` is the spine, read it first.

    brain -- session --+-- inbox, opus, segmenter       what was said, on audio time
                       +-- early                        transcription that starts before the end is sure
                       +-- conversation                 the prompt of the next turn, what was heard of the last
                       +-- turn -- pipeline -- sentences, flow, stage

One session is one device; one turn is one task.
"""
