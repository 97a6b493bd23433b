"""Hold the devices' sockets; pace what they play. No native engine runs here, so it does not crash with one.

    socket -- server -- session --+-- device_protocol   what the bytes mean, without I/O  (framing: binary v1, v2, v3)
                            |     +-- writer, pacing    when the next packet is due
                            |     +-- lifetime          when a session is over
                           seam   +-- admission         who may come in; refusal tells the others why, in the words of notices
                                  +-- tools             what the device can do  (mcp: the asking, mcp_messages: its JSON)

    vision -- vision_upload, vision_jpeg    what a camera posts is answered over HTTP, in the process of the brain
       +-- vision_tokens, vision_words      the address and the token ``tools`` offers a device; what people are told

``session`` is one device from hello to end; ``observer`` is told what happens.
"""
