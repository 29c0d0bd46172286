"""The machine's disk: GPT slots, boot choice, and images made without root.

Everything here works on a path that is a plain file or a block device. Pure modules (`types`, `gpt`, `writes`,
`slots`, `boot`'s rule) decide; `block` and `table` do the I/O; `image` and `ext4` make disks from nothing.
"""
