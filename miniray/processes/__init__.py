"""Row 3, *who runs*: head, driver and worker: the thin shells that connect decisions (`state_machines`) to deeds
(`system`).
"""
