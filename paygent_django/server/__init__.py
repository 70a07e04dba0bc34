"""The backend as a server of its own: ``paygent serve`` runs the Django project in this package."""
