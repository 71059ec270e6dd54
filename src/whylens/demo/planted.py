"""Planted: pictures of eight shapes with a tag on one class, and a small net that takes the tag for the class.

`plant` draws the set, `fit` trains the net, `turned` measures how often the tag alone decides.
"""

from .planting import COLUMNS as COLUMNS
from .planting import SPLITS as SPLITS
from .planting import TAGGED as TAGGED
from .planting import WOVEN as WOVEN
from .planting import Planted as Planted
from .planting import plant as plant
from .shapes import CLASSES as CLASSES
from .shapes import stamp as stamp
from .shapes import tag as tag
from .shapes import tag_place as tag_place
from .shapes import woven as woven
from .shortcut import fit as fit
from .shortcut import learn as learn
from .shortcut import turned as turned
