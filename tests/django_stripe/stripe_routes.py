from django.urls import include, path

urlpatterns = [path("stripe/", include("paygent_django.contrib.stripe.urls"))]
