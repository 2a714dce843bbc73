"""Google Compute Engine: machines by google-cloud-compute, prices by the Cloud Billing Catalog."""
