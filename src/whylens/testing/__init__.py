"""The contract of methods and metrics, as checks to run on your own: ``check_method(my_method)``, ``check_metric``.

The same suite runs on those of the package. A check that fails raises `ContractError` with the figures.
"""

from .held import ContractError as ContractError
from .methods import Case as Case
from .methods import check_method as check_method
from .methods import method_checks as method_checks
from .metrics import check_metric as check_metric
from .metrics import metric_checks as metric_checks
from .nets import SmallNet as SmallNet
from .nets import SmallTable as SmallTable
