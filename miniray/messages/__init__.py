"""What processes say to each other: every wire message of miniray, typed, in one place.

Reading the modules of this package is reading the protocol. Each struct says in one line who sends it to whom and why;
none has behaviour. `envelope` wraps and routes, `control` is the conversation with the head, `tasks` what owners and
workers say about work, `objects` what they say about values and references.

Order is kept from one sender to one receiver (one ZeroMQ PUSH socket each), and never between different senders.
"""
