package main

import (
	"github.com/spf13/cobra"
)

const completionLong = `Prints a completion script for kubectl-zt.

  source <(kubectl zt completion bash)

For completion after ` + "`kubectl zt`" + `, kubectl looks for a program of its own:

  printf '#!/bin/sh\nexec kubectl-zt __complete "$@"\n' > ~/bin/kubectl_complete-zt
  chmod +x ~/bin/kubectl_complete-zt`

func newCompletion(root *cobra.Command, p *process) *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print a completion script",
		Long:      completionLong,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      exactly("bash|zsh|fish|powershell"),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.out, true)
			case "zsh":
				return root.GenZshCompletion(p.out)
			case "fish":
				return root.GenFishCompletion(p.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(p.out)
			}
			return usage("kubectl zt completion bash", "%q is not a shell that is known here", args[0])
		},
	}
}
