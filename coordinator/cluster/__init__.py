"""What Kubernetes says and is told: who answers for a Service, how many pods a Deployment has.

* ``endpoints``: from EndpointSlices to addresses (pure). * ``watch``: follows a Service in a thread of its own.
* ``objects``: scales and pods as far as they are used. * ``api``: the one module that imports the kubernetes library.
"""
