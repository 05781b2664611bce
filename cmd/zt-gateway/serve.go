package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway"
	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/gateway/store"
)

type serveFlags struct {
	config string
	debug  bool
}

func newServeCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var flags serveFlags
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve until SIGTERM; SIGHUP reloads",
		Args:  arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServe(cmd.Context(), streams, flags)
		},
	}
	cmd.Flags().StringVar(&flags.config, "config", "", "the GatewayConfiguration to read")
	cmd.Flags().BoolVar(&flags.debug, "debug", false, "log what support asks for, too")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

func runServe(ctx context.Context, streams genericiooptions.IOStreams, flags serveFlags) error {
	configuration, read, err := readConfiguration(ctx, flags.config)
	if err != nil {
		return err
	}
	paceCollector(os.Getenv)
	level := slog.LevelInfo
	if flags.debug {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(streams.ErrOut, &slog.HandlerOptions{Level: level}))
	klog.SetSlogLogger(logger) // Kubernetes' libraries speak klog: this is where it ends

	g, err := gateway.New(ctx, gateway.Config{
		Configuration: configuration, Logger: logger, File: flags.config, Print: read.Print,
		Parse: func(data []byte) (*v1alpha1.GatewayConfiguration, error) {
			return parseConfiguration(flags.config, data)
		},
	})
	if err != nil {
		return fmt.Errorf("%w\nhint: %s", err, wayOut(err, flags.config, configuration.Directory))
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				_ = g.Reload(ctx) // it has logged and counted what is wrong
			}
		}
	}()
	return g.Run(ctx)
}

// wayOut is what to do after a start that failed. What is wrong in config/ is said
// by check; what is wrong where the gateway runs, check does not see.
func wayOut(err error, file, dir string) string {
	config := filepath.Join(dir, "config")
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "end what listens there, or write another address into " + file
	case errors.Is(err, store.ErrLocked):
		return "end that process, or begin another directory: " + initUse
	case errors.Is(err, gateway.ErrNoPod):
		return "run it there, or write url, certificateAuthorityFile and tokenFile instead of inCluster into " + config
	}
	return "zt-gateway check " + config
}

// readConfiguration waits for a file that is being written.
func readConfiguration(ctx context.Context, file string) (*v1alpha1.GatewayConfiguration, files.Reading, error) {
	read, err := files.Read(ctx, file)
	if err != nil {
		return nil, read, fmt.Errorf("%w\nhint: "+initUse, err)
	}
	c, err := parseConfiguration(file, read.Data[0])
	return c, read, err
}

// parseConfiguration returns every problem with its place, a line each. Paths in
// the file are relative to it.
func parseConfiguration(file string, raw []byte) (*v1alpha1.GatewayConfiguration, error) {
	c, problems := manifest.DecodeGateway(file, raw, time.Now())
	if len(problems) > 0 {
		var faults []error
		for _, p := range problems {
			faults = append(faults, p)
		}
		return nil, errors.Join(faults...)
	}
	return c, resolve(file, c)
}

// resolve makes the paths in a configuration absolute, which are relative to its file.
func resolve(file string, c *v1alpha1.GatewayConfiguration) error {
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return err
	}
	absolute := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(base, *path)
		}
	}
	absolute(&c.Directory)
	absolute(&c.Audit.File)
	absolute(&c.FurtherIssuersFile)
	absolute(&c.OIDC.CertificateAuthorityFile)
	if c.Certificate != nil {
		absolute(&c.Certificate.CertFile)
		absolute(&c.Certificate.KeyFile)
	}
	return nil
}
