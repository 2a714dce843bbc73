output "url" {
  description = "Where agents and people reach it: `atoll login URL`."
  value       = "https://${local.host}"
}

output "address" {
  description = "The address to point the host name at."
  value       = aws_eip.control.public_ip
}

output "role_arn" {
  description = "The machine's role: name it in `trusted_principals` of the module aws."
  value       = aws_iam_role.control.arn
}
