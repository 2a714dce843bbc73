output "atoll_provider" {
  description = "The provider's document: `atoll provider add --from-terraform FILE` reads it."
  sensitive   = true

  value = {
    name = var.name
    type = "openstack"

    settings = {
      region          = var.region
      network         = openstack_networking_network_v2.agents.id
      security_groups = [openstack_networking_secgroup_v2.agents.name]
      image           = data.openstack_images_image_v2.machine.id

      credentials = {
        auth_url                      = var.auth_url
        application_credential_id     = openstack_identity_application_credential_v3.atoll.id
        application_credential_secret = openstack_identity_application_credential_v3.atoll.secret
      }
    }
  }

  # Machines find the way out only once these are there.
  depends_on = [openstack_networking_router_interface_v2.out, openstack_networking_secgroup_rule_v2.out]
}
