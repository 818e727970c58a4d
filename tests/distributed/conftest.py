"""A cluster of two worker processes on this machine."""

import pytest


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A LocalCluster whose temporary directory is one of the session's."""
    distributed = pytest.importorskip("distributed")
    import dask

    folder = str(tmp_path_factory.mktemp("dask"))
    timeouts = {"distributed.comm.timeouts.connect": "60s", "temporary-directory": folder}
    with (
        dask.config.set(timeouts),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=folder,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster, tmp_path):
    """The active client, with an empty temporary directory."""
    import dask
    from distributed import Client

    with dask.config.set({"temporary-directory": str(tmp_path)}), Client(cluster) as client:
        client.wait_for_workers(2, timeout=120)
        yield client
