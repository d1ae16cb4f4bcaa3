"""Other methods, by their own libraries or written anew from the papers; each explains one target.

A peer takes a network and a `Problem` of one row and returns an `Explanation`: a value for every region of a
partition of the image. The passes through the network are counted from outside, see `comparison.passes`.
"""
