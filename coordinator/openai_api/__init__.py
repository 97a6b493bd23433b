"""The fleet's models for people outside: OpenAI's chat completions, so that any client or gateway can stand in front of the pools.

routes -- access          who may ask
   |  +-- request         the body: what is honoured, what is refused by name  (pictures: data URLs; refusals: OpenAI's error form)
   |  +-- choice          which pools, in which order, and why
   |  +-- opening         the first of them that speaks
answering -- chunks       one answer, streamed or whole, stopped when its client leaves
"""
