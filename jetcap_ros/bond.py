"""A bond with a lifecycle manager: the manager notices when the node has gone."""

import importlib


class Bond:
    """
    A bond on the topic bond under the node's name, for as long as the node is active.

    :param mode: 'auto' (where bondpy is installed), 'required' or 'none'.
    :raises ImportError: if it is 'required' and bondpy is not installed.
    """

    def __init__(self, node, mode: str) -> None:
        self._bond = None
        if mode == 'none':
            return
        try:
            bondpy = importlib.import_module('bondpy.bondpy')
        except ImportError:
            if mode == 'required':
                raise
            return
        self._bond = bondpy.Bond(node, 'bond', node.get_name())
        self._bond.start()

    def break_(self) -> None:
        """Say that the node is no longer active."""
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.break_bond()
            bond.shutdown()
